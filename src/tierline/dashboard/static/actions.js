// What a viewer may change, each after a question. The server decides whether they may.

import { Component, h } from "./vendor/preact.js";
import { post } from "./live.js";
import { Modal } from "./modal.js";
import { Money } from "./money.js";
import { Name } from "./words.js";

/** What to send for an amount that a person typed: "5", "$5.00"; null where it is none. */
function amountOf(text) {
  const found = /^\$?(\d{1,12}(?:\.\d{1,9})?)$/.exec(text.trim().replaceAll(",", ""));
  return found && /[1-9]/.test(found[1]) ? `$${found[1]}` : null;
}

const whose = (row) => h(Name, { of: row.account, none: "everybody" });

class Question extends Component {
  constructor() {
    super();
    this.state = { busy: false, error: "" };
  }

  async send(action, body) {
    this.setState({ busy: true, error: "" });
    try {
      await post(`api/${action}`, body, this.props.csrf);
      this.props.done();
    } catch (error) {
      this.setState({ busy: false, error: error.message });
    }
  }

  frame(title, text, buttons) {
    const { busy, error } = this.state;
    return h(
      Modal,
      { title, close: this.props.close, class: "question" },
      h(
        "form",
        {
          method: "dialog",
          onSubmit: (event) => {
            event.preventDefault();
            if (!busy) this.submit(event.target);
          },
        },
        text,
        h("p", { role: "alert", class: "error" }, error),
        h("p", { class: "buttons" }, h("button", { type: "button", onClick: this.props.close }, "Cancel"), buttons),
      ),
    );
  }
}

class LimitQuestion extends Question {
  submit(form) {
    const { row } = this.props.asked;
    const limit = amountOf(form.elements.limit.value);
    if (limit === null)
      this.setState({ error: "Write an amount of dollars that is more than nothing, as 5 or $7.50." });
    else this.send("limit", { budget: row.budget, account: row.account || null, limit });
  }

  render({ asked: { row } }, { busy }) {
    return this.frame(
      "Change a limit",
      [
        h(
          "p",
          { key: "what" },
          "The budget ",
          h(Name, { of: row.budget }),
          " of ",
          whose(row),
          " has a limit of ",
          h(Money, { of: row.limit, places: 2 }),
          ". What is spent stays spent.",
        ),
        h(
          "label",
          { key: "label" },
          "New limit, in dollars ",
          h("input", { name: "limit", required: true, inputMode: "decimal", autocomplete: "off", autofocus: true }),
        ),
      ],
      [
        row.overridden &&
          h(
            "button",
            {
              key: "back",
              type: "button",
              disabled: busy,
              onClick: () => this.send("limit", { budget: row.budget, account: row.account || null, limit: null }),
            },
            "Back to the configured one",
          ),
        h("button", { key: "ok", class: "primary", disabled: busy }, "Set the limit"),
      ],
    );
  }
}

class BreakerQuestion extends Question {
  submit() {
    const { row } = this.props.asked;
    this.send("breaker", { model: row.model, endpoint: row.endpoint || null });
  }

  render({ asked: { row } }, { busy }) {
    return this.frame(
      "Close a breaker",
      h("p", null, "Calls go to ", h(Name, { of: row.model }), " again at once. It opens again if they fail."),
      h("button", { class: "primary", disabled: busy, autofocus: true }, "Close it"),
    );
  }
}

class VerdictsQuestion extends Question {
  submit() {
    this.send("verdicts", {});
  }

  render(_, { busy }) {
    return this.frame(
      "Clear the verdict cache",
      h("p", null, "Texts that were judged before are judged anew, and paid for anew, from the next call on."),
      h("button", { class: "primary", disabled: busy, autofocus: true }, "Clear it"),
    );
  }
}

const QUESTIONS = { limit: LimitQuestion, breaker: BreakerQuestion, verdicts: VerdictsQuestion };

export const Ask = ({ asked, ...rest }) => h(QUESTIONS[asked.kind], { asked, ...rest });
