// Messages: a result of the API, as proto3 JSON, becomes the answer that the viewer shows.

const AXES = { ATTENTION_AXIS_SOURCE: "source", ATTENTION_AXIS_TARGET: "target", ATTENTION_AXIS_DECODER_INPUT: "decoder_input", ATTENTION_AXIS_PATCHES: "patches" };
const RIGHT_TO_LEFT = /^\P{L}*[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u;
/** How vocabularies mark that a token begins a word, or goes on with one; the viewer shows it by the space. */
const BOUNDS = /^(\u2581|\u0120|##)/u;

/** Returns the word of an enum's name: what follows its type. */
function word(name, type) {
    return name.slice(type.length + 1).toLowerCase();
}

/** Returns the answer of a result to `given`, a text or a picture, or null if it holds no attention. */
function answerOf(task, result, model, { text = null, picture = null }) {
    const { attention } = result;
    if (!attention?.maps.length) return null;
    const output = result.text ?? null;
    const texts = { source: text, target: output, decoder_input: output };
    const spelled = attention.granularity === "ATTENTION_GRANULARITY_TOKEN";
    const axes = Object.fromEntries(attention.axes.map((axis) => [AXES[axis.axis], axisOf(axis, texts[AXES[axis.axis]] ?? null, spelled)]));
    return {
        task,
        source: text,
        picture,
        output,
        classes: result.classes ?? [],
        out_of_scope: result.out_of_scope ?? false,
        truncated: result.truncated ?? false,
        model: `${model.name}/${model.version}`,
        precision: attention.precision,
        package_sha256: attention.package_sha256,
        granularity: word(attention.granularity, "ATTENTION_GRANULARITY"),
        axes,
        maps: attention.maps.map(mapOfMessage),
    };
}

function mapOfMessage(map) {
    return {
        kind: word(map.kind, "ATTENTION_KIND"),
        stack: word(map.stack, "ATTENTION_STACK"),
        layer: map.layer,
        heads: map.heads,
        reduction: word(map.reduction, "ATTENTION_REDUCTION"),
        query_axis: AXES[map.query_axis],
        key_axis: AXES[map.key_axis],
        shape: map.shape,
        encoding: word(map.encoding, "ATTENTION_ENCODING"),
        error: 0,
        weights: map.weights,
    };
}

/** Returns an axis of the viewer; `spelled` if its elements are tokens, whose marks of a word's bounds are left out. */
function axisOf({ segments, grid }, text, spelled) {
    const characters = text === null ? null : [...text];
    let [end, apart] = [0, false];
    const described = segments.map(({ text: name, start, end: stop, special }) => {
        const spaced = apart || special || characters === null || characters.slice(end, start).some((one) => /\s/u.test(one));
        [end, apart] = [Math.max(end, stop), special];
        return { text: spelled && !special ? name.replace(BOUNDS, "") || name : name, special, spaced };
    });
    return { direction: RIGHT_TO_LEFT.test(text ?? "") ? "rtl" : "ltr", segments: described, grid: grid ? shares(grid) : null };
}

function shares({ rows, columns, image_width: wide, image_height: high, left, top, width, height }) {
    return { rows, columns, left: left / wide, top: top / high, width: width / wide, height: height / high };
}
