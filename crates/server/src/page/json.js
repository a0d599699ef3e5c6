// JSON whose numbers stay as they were sent: one that a double does not hold keeps its digits.

/** A number by its digits. */
export class Digits {
  constructor(text) { this.text = text; }
  toString() { return this.text; }
}

/** Whether a double keeps all that the text of a number says: up to 15 digits always. */
const isKept = (value, text) => Number.isFinite(value) && (text.replace(/[eE].*$/, "").replace(/[-.]/g, "").replace(/^0+/, "").length <= 15 || String(value) === text);

// A browser that does not tell the text of a number has the nearest double; "as it was sent" is right in any.
const exact = (_, value, context) => (typeof value === "number" && context?.source !== undefined && !isKept(value, context.source) ? new Digits(context.source) : value);

export const parsed = (text) => JSON.parse(text, exact);
export const written = (value) => JSON.stringify(value, (_, one) => (one instanceof Digits ? (JSON.rawJSON ? JSON.rawJSON(one.text) : one.text) : one));
