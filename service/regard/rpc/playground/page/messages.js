// Messages: a result of the API, as proto3 JSON, becomes the answer that the viewer shows.

const AXES = { ATTENTION_AXIS_SOURCE: "source", ATTENTION_AXIS_TARGET: "target", ATTENTION_AXIS_DECODER_INPUT: "decoder_input", ATTENTION_AXIS_PATCHES: "patches" };
const RIGHT_TO_LEFT = /^\P{L}*[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u;
/** How vocabularies mark that a token begins a word, or goes on with one; the viewer shows it by the space. */
const BOUNDS = /^(\u2581|\u0120|##)/u;

/** Returns the word of an enum's name: what follows its type. */
function word(name, type) {
    return name.slice(type.length + 1).toLowerCase();
}

/** Returns the answer of a result to what was given: texts or a picture. Its maps are none where it holds no attention. */
function answerOf(task, result, model, { text = null, question = null, picture = null }) {
    const { attention } = result;
    const output = result.text ?? null;
    const read = question === null ? [result.read ?? text] : [question, text];
    const texts = { source: read, target: [output], decoder_input: [task === "completion" ? text + output : output] };
    const spelled = attention?.granularity === "ATTENTION_GRANULARITY_TOKEN";
    const axes = (attention?.axes ?? []).map((axis) => [AXES[axis.axis], axisOf(axis, texts[AXES[axis.axis]] ?? [null], spelled)]);
    return {
        task,
        source: read[0],
        picture,
        output,
        classes: barsOf(result),
        out_of_scope: result.out_of_scope ?? false,
        marked: markedOf(result, text),
        truncated: result.truncated ?? false,
        model: `${model.name}/${model.version}`,
        precision: attention?.precision,
        package_sha256: attention?.package_sha256,
        granularity: attention && word(attention.granularity, "ATTENTION_GRANULARITY"),
        axes: Object.fromEntries(axes),
        maps: (attention?.maps ?? []).map(mapOfMessage),
    };
}

function barsOf({ classes, answers }) {
    return classes ?? answers?.map(({ text, score }) => ({ label: text, probability: score })) ?? [];
}

function markedOf({ entities, answers }, text) {
    const found = entities ?? answers?.slice(0, 1).filter((one) => one.text);
    return found ? { text, spans: found.map(({ start, end, label = "", score }) => ({ start, end, label, score })) } : null;
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

/** Returns an axis of the viewer over `texts`; `spelled` if its elements are tokens, whose marks of a word's bounds are left out. */
function axisOf({ segments, grid, frames }, texts, spelled) {
    const characters = texts.map((text) => text === null ? null : [...text]);
    let [end, apart, before] = [0, false, 0];
    const described = segments.map(({ text: name, start, end: stop, special, part = 0 }) => {
        if (part !== before) [end, apart, before] = [0, true, part];
        const inText = characters[part] ?? null;
        const spaced = apart || special || inText === null || inText.slice(end, start).some((one) => /\s/u.test(one));
        [end, apart] = [Math.max(end, stop), special];
        return { text: spelled && !special ? name.replace(BOUNDS, "") || name : name, special, spaced };
    });
    return { direction: RIGHT_TO_LEFT.test(texts.at(-1) ?? "") ? "rtl" : "ltr", segments: described, grid: grid ? shares(grid) : null, frames: frames ? { start: frames.start_s, seconds: frames.seconds_per_frame } : null };
}

function shares({ rows, columns, image_width: wide, image_height: high, left, top, width, height }) {
    return { rows, columns, left: left / wide, top: top / high, width: width / wide, height: height / high };
}
