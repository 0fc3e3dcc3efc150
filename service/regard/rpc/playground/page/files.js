// Files: what is dropped on a field, pasted or chosen there.

/** Makes a drop field take a file, by whatever way it comes; `use` gets the file. Returns what takes one. */
function takeFiles(drop, use) {
    const input = drop.querySelector("input");
    const take = (file) => file && use(file);
    input.addEventListener("change", () => take(input.files[0]));
    drop.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        input.click();
    });
    for (const type of ["dragenter", "dragover"]) {
        drop.addEventListener(type, (event) => {
            event.preventDefault();
            drop.classList.add("over");
        });
    }
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
        event.preventDefault();
        drop.classList.remove("over");
        take(event.dataTransfer.files[0]);
    });
    return take;
}

/** Returns a file as a data URI. */
function uriOf(file) {
    const reader = new FileReader();
    const read = new Promise((resolve) => { reader.onload = () => resolve(reader.result); });
    reader.readAsDataURL(file);
    return read;
}

function base64Of(uri) {
    return uri.slice(uri.indexOf(",") + 1);
}
