// A dialog of the browser's own: it keeps the focus inside, closes by Escape, and gives the focus back.

import { Component, createRef, h } from "./vendor/preact.js";

export class Modal extends Component {
  #box = createRef();
  #opener = document.activeElement;

  componentDidMount() {
    this.#box.current.showModal();
  }

  componentWillUnmount() {
    this.#box.current.close();
    if (this.#opener?.isConnected) this.#opener.focus();
  }

  render({ title, close, children, ...rest }) {
    return h(
      "dialog",
      {
        ...rest,
        ref: this.#box,
        "aria-labelledby": "dialog-title",
        onClose: close,
        onCancel: (event) => {
          event.preventDefault();
          close();
        },
        onClick: (event) => event.target === this.#box.current && close(),
      },
      h(
        "div",
        { class: "sheet" },
        h(
          "header",
          null,
          h("h2", { id: "dialog-title" }, title),
          h("button", { type: "button", class: "quiet", "aria-label": "Close", onClick: close }, "✕"),
        ),
        children,
      ),
    );
  }
}
