/** Server-sent events of a response's body (HTML standard, section 9.2.6). */

/** Yields the data of each event, in order. Comments and other fields say
 * nothing to this page. */
export async function* eventData(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const lines = new LineSplitter();
  let data = [];
  try {
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
      for (const line of lines.take(decoder.decode(chunk.value, { stream: true }))) {
        if (line === "" && data.length > 0) {
          yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // it may have failed already
  }
}

/** Lines that end in CR LF, LF or CR, of text in pieces. */
class LineSplitter {
  #pieces = []; // of the line that has not ended
  #endsInReturn = false;

  take(text) {
    // A line feed after a return that ended the piece before ends nothing.
    const rest = this.#endsInReturn && text[0] === "\n" ? text.slice(1) : text;
    this.#endsInReturn = text === "" ? this.#endsInReturn : text.endsWith("\r");
    const parts = rest.split(/\r\n|\n|\r/);
    this.#pieces.push(parts[0]);
    if (parts.length === 1) {
      return [];
    }
    parts[0] = this.#pieces.join("");
    this.#pieces = [parts.pop()];
    return parts;
  }
}
