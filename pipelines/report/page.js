"use strict";
// Comfort only: filter, enlarge, copy. The page can be read without any of it.
const filter = document.getElementById("filter");
filter.hidden = false;
filter.addEventListener("input", () => {
  const wanted = filter.value.trim().toLowerCase();
  for (const found of document.querySelectorAll("[data-find]")) found.hidden = !found.dataset.find.includes(wanted);
});

const dialog = document.createElement("dialog");
dialog.setAttribute("aria-label", "Enlarged frames");
dialog.addEventListener("click", () => dialog.close());
document.body.append(dialog);
const enlarge = (strip) => {
  const shown = strip.cloneNode(true);
  shown.removeAttribute("tabindex");
  shown.removeAttribute("role");
  const caption = document.createElement("p");
  const card = strip.closest(".card");
  caption.textContent = [...card.querySelectorAll("h5 span, .verdict")].map((part) => part.textContent).join(" · ");
  dialog.replaceChildren(shown, caption);
  dialog.showModal();
};
for (const strip of document.querySelectorAll(".strip")) {
  strip.tabIndex = 0;
  strip.setAttribute("role", "button");
  strip.setAttribute("aria-label", "Enlarge these frames");
  strip.addEventListener("click", () => enlarge(strip));
  strip.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); enlarge(strip); }
  });
}

for (const code of document.querySelectorAll("code.copy")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  code.after(button);
}
