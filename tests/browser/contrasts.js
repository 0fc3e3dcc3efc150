// Every text that is visible, with the contrast of its colour to what lies behind it (WCAG 2, 1.4.3).
() => {
    const brush = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

    function over(color, below) {
        for (const layer of [below, color]) {
            brush.fillStyle = layer;
            brush.fillRect(0, 0, 1, 1);
        }
        const [red, green, blue] = brush.getImageData(0, 0, 1, 1).data;
        return `rgb(${red} ${green} ${blue})`;
    }

    function behind(element) {
        return element ? over(getComputedStyle(element).backgroundColor, behind(element.parentElement)) : "white";
    }

    function luminance(color) {
        const [red, green, blue] = color.match(/\d+/g).map((value) => {
            const share = value / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    }

    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const [text, element] = [texts.currentNode.data.trim(), texts.currentNode.parentElement];
        if (!text || !element.checkVisibility() || element.matches("script, .skip")) continue;
        const back = behind(element);
        const [dark, light] = [luminance(over(getComputedStyle(element).color, back)), luminance(back)].sort((a, b) => a - b);
        found.push([(light + 0.05) / (dark + 0.05), text]);
    }
    return found;
}
