// Events: a method of the API is asked in proto3 JSON, and answers in lines of it.

/** Why there is no answer: `code` is gRPC's, `field` names what is at fault, if something is. */
class Problem extends Error {
    constructor({ code, message, field, retry_after_s: retryAfter }) {
        super(retryAfter ? `${message} (again in ${Math.ceil(retryAfter)} s)` : message);
        this.code = code;
        this.field = field || fieldOf(message);
    }
}

/** Yields the events of a call, as they come. Aborting `signal` cancels it on the server too. */
async function* ask(method, request, signal) {
    const asked = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request), signal };
    const response = await fetch(`playground/${method}`, asked).catch((error) => {
        throw error.name === "AbortError" ? error : new Problem({ code: "UNAVAILABLE", message: "the server can’t be reached" });
    });
    let rest = "";
    for await (const chunk of chunksOf(response.body.pipeThrough(new TextDecoderStream()))) {
        const lines = (rest + chunk).split("\n");
        rest = lines.pop();
        for (const line of lines) yield read(line);
    }
}

function read(line) {
    const event = JSON.parse(line);
    const failure = event.error ?? event.failure ?? event.results?.[0].failure;
    if (failure) throw new Problem(failure);
    return event;
}

async function* chunksOf(stream) {
    const reader = stream.getReader();
    try {
        for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
    } finally {
        reader.releaseLock();
    }
}

/** Returns the field that a message of the server begins with, as in "generation.num_beams is …"; "" for none. */
function fieldOf(message) {
    return /^[a-z_]+(\[\d+\])?(\.[a-z_]+(\[\d+\])?)*(?=[: ])/.exec(message)?.[0] ?? "";
}
