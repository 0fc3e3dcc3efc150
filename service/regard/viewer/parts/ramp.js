// Colour: a ramp whose lightness grows evenly with the weight, from the paper to the darkest or lightest shade.

// Stops are [lightness, chroma, hue in degrees] of OKLCH; lightness is interpolated evenly.
const LIGHT_STOPS = [[0.97, 0.006, 190], [0.8, 0.065, 195], [0.63, 0.1, 220], [0.45, 0.12, 250], [0.28, 0.105, 272]];
const DARK_STOPS = [[0.235, 0.018, 265], [0.38, 0.075, 250], [0.56, 0.1, 215], [0.76, 0.11, 165], [0.95, 0.1, 108]];
const SHADES = 256;

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const ramps = new Map();

function isDark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : systemIsDark.matches;
}

function rampOf(dark) {
    if (!ramps.has(dark)) ramps.set(dark, makeRamp(dark ? DARK_STOPS : LIGHT_STOPS));
    return ramps.get(dark);
}

/** Returns [red, green, blue] for a share from 0 to 1 of the largest weight, in the theme's ramp. */
function shade(share, ramp = rampOf(isDark())) {
    return ramp[Math.round(Math.min(Math.max(share, 0), 1) * (SHADES - 1))];
}

function css([red, green, blue]) {
    return `rgb(${red} ${green} ${blue})`;
}

/** Returns the colour of text on a colour: black or white, whichever stands out more (WCAG 2, contrast ratio). */
function inkOn(color) {
    const luminance = luminanceOf(color);
    return 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 ? "white" : "black";
}

function luminanceOf(color) {
    const [red, green, blue] = color.map((value) => {
        const share = value / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function makeRamp(stops) {
    return Array.from({ length: SHADES }, (_, index) => {
        const position = (index / (SHADES - 1)) * (stops.length - 1);
        const from = Math.min(Math.floor(position), stops.length - 2);
        const [, ...tint] = stops[from].map((value, place) => mix(value, stops[from + 1][place], position - from));
        return srgb(mix(stops[0][0], stops.at(-1)[0], index / (SHADES - 1)), ...tint);
    });
}

function mix(from, to, share) {
    return from + (to - from) * share;
}

/** Turns OKLCH into sRGB (Ottosson 2020, "A perceptual color space for image processing"), clipped to its gamut. */
function srgb(lightness, chroma, hue) {
    const a = chroma * Math.cos((hue * Math.PI) / 180);
    const b = chroma * Math.sin((hue * Math.PI) / 180);
    const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
    const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
    const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
    return [
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
    ].map((linear) => {
        const share = Math.min(Math.max(linear, 0), 1);
        return Math.round(255 * (share <= 0.0031308 ? 12.92 * share : 1.055 * share ** (1 / 2.4) - 0.055));
    });
}
