// Scenes: pictures of coloured shapes, drawn here so that there is an image to ask about at once.

const SCENE_SIDE = 192;
const PAINTS = { red: "#d42a2e", orange: "#f48422", yellow: "#f8d43a", green: "#349e4a", cyan: "#3ac4cc", blue: "#2c54d0", purple: "#8440b0", pink: "#f27cb2" };

/** Draws shapes, each [colour, shape, x, y, half its width] in shares of the side; returns a PNG's data URI. */
function drawScene({ shapes, paper: [from, to] }) {
    const canvas = element("canvas", { width: SCENE_SIDE, height: SCENE_SIDE });
    const context = canvas.getContext("2d");
    const graded = context.createLinearGradient(0, 0, SCENE_SIDE, SCENE_SIDE);
    graded.addColorStop(0, from);
    graded.addColorStop(1, to);
    context.fillStyle = graded;
    context.fillRect(0, 0, SCENE_SIDE, SCENE_SIDE);
    for (const [color, kind, x, y, half] of shapes) {
        context.setTransform(half * SCENE_SIDE, 0, 0, half * SCENE_SIDE, x * SCENE_SIDE, y * SCENE_SIDE);
        context.fillStyle = PAINTS[color];
        context.fill(OUTLINES[kind](), "evenodd");
    }
    return canvas.toDataURL("image/png");
}

/** The outline of each shape, from -1 to 1. */
const OUTLINES = {
    circle: () => arcs(1),
    ring: () => arcs(1, 0.52),
    square: () => polygon([[-1, -1], [1, -1], [1, 1], [-1, 1]]),
    triangle: () => polygon([[0, -1], [1, 1], [-1, 1]]),
    cross: () => polygon([[-1, -0.34], [-0.34, -0.34], [-0.34, -1], [0.34, -1], [0.34, -0.34], [1, -0.34], [1, 0.34], [0.34, 0.34], [0.34, 1], [-0.34, 1], [-0.34, 0.34], [-1, 0.34]]),
    star: () => polygon(Array.from({ length: 10 }, (_, corner) => {
        const radius = corner % 2 ? 0.42 : 1;
        return [radius * Math.sin((Math.PI * corner) / 5), -radius * Math.cos((Math.PI * corner) / 5)];
    })),
};

function arcs(...radii) {
    const path = new Path2D();
    for (const radius of radii) {
        path.moveTo(radius, 0);
        path.arc(0, 0, radius, 0, 2 * Math.PI);
    }
    return path;
}

function polygon(corners) {
    const path = new Path2D();
    for (const corner of corners) path.lineTo(...corner);
    path.closePath();
    return path;
}
