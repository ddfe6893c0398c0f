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

/** Writes only what differs, so that screen readers and transitions are left alone. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
