// The theme: the system's until it is chosen.

/** Lets a button change between light and dark; `redraw` draws anew what bears the theme's colours. */
function addThemes(toggle, redraw) {
    const change = () => {
        toggle.textContent = isDark() ? "Light" : "Dark";
        redraw();
    };
    toggle.addEventListener("click", () => {
        document.documentElement.dataset.theme = isDark() ? "light" : "dark";
        change();
    });
    systemIsDark.addEventListener("change", change);
    change();
}
