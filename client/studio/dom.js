// Builds elements. Text only ever enters as text: nothing here or elsewhere parses a string as HTML.

/** `el("p", {class: "x", onclick: f, hidden: true, "aria-label": "..."}, "text", child)`. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Writes only what differs, so that screen readers and transitions are left alone. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function options(select, choices, chosen) {
  select.replaceChildren(...choices.map(([value, label]) => el("option", { value }, label)));
  select.value = chosen;
}

// Finished pictures and addresses come from a service: only these two schemes are ever given to an <img> or a link.
export const isWebAddress = (url) => /^https?:\/\//i.test(url ?? "");
