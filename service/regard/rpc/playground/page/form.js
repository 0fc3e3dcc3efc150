// The form: which model is asked what, and the request that says so.

const REDUCTIONS = { "": "every head", MEAN: "their mean", MAX: "their largest", ROLLOUT: "rollout over layers", ALIGNMENT_HEADS: "alignment heads" };

/** What a person chooses before asking; `onchange` is called whenever the request would be another. */
class Form {
    constructor(root, models, limits, onchange) {
        this.root = root;
        this.limits = limits;
        this.onchange = onchange;
        this.models = models.filter((model) => model.task in ASKED);
        this.picture = null;
        this.sound = null;
        this.problem = root.querySelector(".problem");
        this.question = root.querySelector("[data-field=question] textarea");
        this.text = root.querySelector("[data-field=text] textarea");
        this.fields = new Map();
        this.#addTasks();
        this.#takeFiles();
        for (const one of [this.question, this.text]) one.addEventListener("input", () => this.#changed());
        if (this.models.length) this.choose(this.models[0]);
    }

    get asked() {
        return ASKED[this.model.task];
    }

    get task() {
        return this.asked.shown;
    }

    /** The fields that are to be filled before anything is asked. */
    get gives() {
        return this.asked.gives ?? [this.model.image ? "image" : "text"];
    }

    /** What is asked and how; null as long as something is missing. */
    get order() {
        if (this.missing) return null;
        const given = this.#given;
        return { asked: this.asked, request: this.#request(given), given };
    }

    /** What is not given yet, as a problem; null if all is there. */
    get missing() {
        const { base64, question, text = "" } = this.#given;
        const given = { image: base64, sound: base64, question, text: this.task === "similarity" ? linesOf(text).length : text };
        const absent = this.gives.find((name) => !given[name]);
        if (!absent) return null;
        const messages = { image: "give an image first", sound: "give a sound first", question: "type a question first", text: this.asked.lacking };
        return { field: absent, message: messages[absent] };
    }

    get #given() {
        const given = { image: this.picture, sound: this.sound, question: { question: this.question.value }, text: { text: this.text.value } };
        return Object.assign({}, ...this.gives.map((name) => given[name]));
    }

    choose(model) {
        const another = model.task !== this.model?.task;
        this.clear();
        this.model = model;
        for (const button of this.tasks) button.setAttribute("aria-pressed", button.value === model.task);
        const field = (name) => this.root.querySelector(`[data-field=${name}]`);
        for (const name of ["question", "image", "sound", "text"]) field(name).hidden = !this.gives.includes(name);
        field("text").querySelector(".name").textContent = this.text.ariaLabel = this.asked.text ?? "";
        this.#fillExamples();
        this.#fillOptions(another);
        this.#changed();
    }

    /** Shows a problem beside the field that it names, or below all, wherever the page was scrolled to. */
    refuse(problem) {
        this.clear();
        this.#place(problem);
        this.problem.scrollIntoView({ block: "nearest" });
    }

    clear() {
        this.problem.hidden = true;
        this.root.querySelector(".actions").before(this.problem);
        for (const control of this.root.querySelectorAll("[aria-invalid]")) {
            control.removeAttribute("aria-invalid");
            control.removeAttribute("aria-describedby");
        }
    }

    #place(problem) {
        const name = problem.field?.replaceAll(/\[\d+\]/g, "") ?? "";
        const given = name.endsWith(".question") ? "question" : this.gives.at(-1);
        const known = { texts: "text", prompts: "text", images: "image", inputs: given };
        const field = this.root.querySelector(`[data-field="${CSS.escape(known[name.split(".")[0]] ?? name)}"]`);
        this.problem.textContent = problem.message;
        this.problem.hidden = false;
        if (!field || field.hidden) return; // that of another task, chosen meanwhile
        field.append(this.problem);
        const control = field.querySelector("textarea, select, input");
        control.setAttribute("aria-invalid", "true");
        control.setAttribute("aria-describedby", "problem");
        field.closest("details")?.setAttribute("open", "");
    }

    #changed() {
        this.clear();
        this.onchange();
    }

    #addTasks() {
        const places = Object.keys(ASKED);
        const tasks = [...new Set(this.models.map((model) => model.task))].sort((one, other) => places.indexOf(one) - places.indexOf(other));
        this.tasks = tasks.map((task) => {
            const choose = () => task !== this.model.task && this.choose(this.models.find((model) => model.task === task));
            return element("button", { type: "button", value: task, onclick: choose }, ASKED[task].name);
        });
        this.models.sort((one, other) => tasks.indexOf(one.task) - tasks.indexOf(other.task));
        this.root.querySelector(".tasks").append(...this.tasks);
        if (tasks.length) walkable(this.root.querySelector(".tasks"), this.tasks);
    }

    #fillExamples() {
        const texts = this.gives.includes("question") ? QUESTIONS : (TEXTS[this.model.task] ?? []).map((text) => ({ text }));
        const examples = this.gives.includes("image") ? SCENES.map((scene) => this.#scene(scene)) : texts.map((example) => this.#example(example));
        this.root.querySelector(".examples").replaceChildren(...examples);
    }

    #scene(scene) {
        const uri = drawScene(scene);
        const name = scene.name.replace(".png", "").replaceAll("-", " ");
        const take = () => {
            if (this.gives.includes("text") && this.text.value.trim() === "") this.text.value = COMPARED;
            this.#take(uri, scene.name);
        };
        return element("button", { type: "button", className: "scene", "aria-label": name, onclick: take }, element("img", { src: uri, alt: "" }));
    }

    #example({ question, text }) {
        const take = () => {
            if (question) this.question.value = question;
            this.text.value = text;
            this.#changed();
            this.root.requestSubmit();
        };
        return element("button", { type: "button", onclick: take }, question ?? text);
    }

    /** Puts in the options of the model; of another model of the same task they stay as they were, where it has them. */
    #fillOptions(another) {
        const options = this.root.querySelector(".options");
        const before = another ? [] : [...this.fields].filter(([name]) => name !== "model_name");
        const held = [...this.fields].find(([, control]) => control === document.activeElement)?.[0];
        this.fields.clear();
        const rows = [this.#modelField()];
        if (this.model.taps.length) rows.push(this.#kinds());
        const more = this.asked.numbers.map(([name, label, without]) => this.#number(name, label, without || String(this.model.max_target_tokens)));
        if (this.task === "completion") {
            this.fields.get("generation.max_new_tokens").value = MOST_OF_A_COMPLETION;
            more.push(this.#select("templated", "Special tokens", [["", "are text"], ["true", "are read as such"]]));
        }
        if (this.model.taps.length) more.push(...this.#attention());
        const details = element("details", {}, element("summary", {}, "More options"), ...more);
        details.open = !another && options.querySelector("details")?.open === true;
        options.replaceChildren(...rows, ...(more.length ? [details] : []));
        for (const [name, { value }] of before) {
            const control = this.fields.get(name);
            if (control && [...(control.options ?? [{ value }])].some((one) => one.value === value)) control.value = value;
        }
        this.#keepApart();
        this.fields.get(held)?.focus();
    }

    #modelField() {
        const same = this.models.filter((model) => model.task === this.model.task);
        const choices = same.map((model, index) => [String(index), versioned(model, this.models) ? `${model.name}/${model.version}` : model.name]);
        const field = this.#select("model_name", "Model", choices, () => this.choose(same[Number(this.fields.get("model_name").value)]));
        this.fields.get("model_name").value = String(same.indexOf(this.model));
        return field;
    }

    #kinds() {
        const told = this.model.taps.filter((tap) => !(this.model.speech && tap.stack === "ATTENTION_STACK_ENCODER"));
        const named = new Map(told.map((tap) => [`${tap.kind} ${tap.stack}`, kindName(tap)]));
        const first = (name) => name.includes("CROSS") || name.includes("IMAGE");
        const ordered = [...named].sort(([one], [other]) => first(other) - first(one));
        const together = ordered.length > 1 && this.task !== "similarity" && !this.model.speech; // the stacks of one sequence
        const every = together ? [["", "all of them"]] : [];
        return this.#select("attention.kinds", "Attention", [...ordered, ...every], () => this.#keepApart());
    }

    #attention() {
        const { taps, image } = this.model;
        const counted = (length) => Array.from({ length }, (_, index) => [String(index), String(index)]);
        const layers = Math.max(...taps.map((tap) => tap.layer)) + 1;
        const heads = Math.max(...taps.map((tap) => tap.heads));
        const aligned = this.model.task === "TASK_TRANSLATION";
        const reductions = Object.entries(REDUCTIONS).filter(([name]) => aligned || name !== "ALIGNMENT_HEADS");
        const fields = [
            this.#select("attention.layers", "Layer", [["", "all"], ...counted(layers)]),
            this.#select("attention.heads", "Head", [["", "all"], ...counted(heads)]),
            this.#select("attention.reduction", "Show heads as", reductions, () => this.#keepApart()),
        ];
        if (this.model.speech) this.fields.get("attention.reduction").value = "MEAN"; // of 1,500 frames for each token
        const grains = this.asked.streams && !this.model.speech ? [["TOKEN", "tokens, as they come"], ["WORD", "words"]] : [["WORD", "words"], ["TOKEN", "tokens"]];
        if (!image || this.model.max_target_tokens || this.task === "similarity") fields.push(this.#select("attention.granularity", "Grain", grains));
        return fields;
    }

    /** The alignment heads are what the package says: nothing else can be chosen with them. */
    #keepApart() {
        const alone = this.fields.get("attention.reduction")?.value === "ALIGNMENT_HEADS";
        for (const name of ["attention.kinds", "attention.layers", "attention.heads"]) {
            const field = this.fields.get(name);
            if (field) field.disabled = alone;
        }
    }

    #select(name, label, choices, onchange = () => {}) {
        const control = element("select", {}, ...choices.map(([value, shown]) => element("option", { value }, shown)));
        return this.#field(name, label, control, onchange);
    }

    #number(name, label, placeholder) {
        return this.#field(name, label, element("input", { type: "number", min: "1", placeholder, inputMode: "numeric" }), () => {});
    }

    #field(name, label, control, onchange) {
        this.fields.set(name, control);
        control.ariaLabel = label; // and not all that its label holds, to which a problem may be added
        control.addEventListener("input", () => {
            onchange();
            this.#changed();
        });
        return element("label", { "data-field": name }, element("span", { className: "name" }, label), control);
    }

    #request(given) {
        const { model } = this;
        const value = (name) => {
            const field = this.fields.get(name);
            return field && !field.disabled ? field.value : "";
        };
        const request = { model_name: model.name };
        if (versioned(model, this.models)) request.model_version = model.version;
        Object.assign(request, this.asked.inputsOf(given));
        const numbers = ["num_beams", "max_new_tokens"].filter((name) => value(`generation.${name}`) !== "");
        if (numbers.length) request.generation = Object.fromEntries(numbers.map((name) => [name, Number(value(`generation.${name}`))]));
        for (const name of ["top_k", "max_answer_tokens"]) if (value(name) !== "") request[name] = Number(value(name));
        if (value("templated")) request.templated = true;
        if (model.taps.length) request.attention = this.#attentionOf(value);
        return request;
    }

    #attentionOf(value) {
        const attention = {};
        const kinds = this.fields.get("attention.kinds");
        if (!kinds.disabled && kinds.value) [attention.kinds, attention.stacks] = kinds.value.split(" ").map((name) => [name]);
        else if (!kinds.disabled) attention.kinds = [...new Set(this.model.taps.map((tap) => tap.kind))];
        for (const name of ["layers", "heads"]) if (value(`attention.${name}`)) attention[name] = [Number(value(`attention.${name}`))];
        if (value("attention.reduction")) attention.reduction = `ATTENTION_REDUCTION_${value("attention.reduction")}`;
        if (value("attention.granularity")) attention.granularity = `ATTENTION_GRANULARITY_${value("attention.granularity")}`;
        return attention;
    }

    #takeFiles() {
        const drop = (name) => this.root.querySelector(`[data-field=${name}] .drop`);
        const takeImage = takeFiles(drop("image"), async (file) => this.#fits(file, "image", this.limits.max_image_bytes) && this.#take(await uriOf(file), file.name || "image.png"));
        takeFiles(drop("sound"), async (file) => this.#fits(file, "sound", this.limits.max_audio_bytes) && this.#hear(await uriOf(file), file.name));
        addEventListener("paste", (event) => this.gives.includes("image") && takeImage(event.clipboardData.files[0]));
    }

    #fits({ size }, kind, most) {
        if (size > most) this.refuse({ field: kind, message: `this file has ${size} bytes; the server takes ${kind}s of at most ${most}` });
        return size <= most;
    }

    #hear(uri, name) {
        this.sound = { name, base64: base64Of(uri) };
        this.root.querySelector("[data-field=sound] .taken").textContent = name;
        this.#changed();
        this.root.requestSubmit();
    }

    async #take(uri, name) {
        const shown = this.root.querySelector("[data-field=image] img");
        shown.src = uri;
        const seen = await shown.decode().then(() => true, () => false);
        shown.hidden = !seen;
        this.root.querySelector("[data-field=image] .hint").hidden = seen;
        const size = { width: shown.naturalWidth || 1, height: shown.naturalHeight || 1 };
        this.picture = { name, base64: base64Of(uri), picture: { uri, ...size } };
        this.#changed();
        this.root.requestSubmit();
    }
}

function kindName({ kind, stack }) {
    if (kind === "ATTENTION_KIND_CROSS") return "cross-attention";
    return `${word(stack, "ATTENTION_STACK").replace("_", " ")} self-attention`;
}

/** Tells whether a model's name alone wouldn't say which one. */
function versioned({ name }, models) {
    return models.filter((model) => model.name === name).length > 1;
}
