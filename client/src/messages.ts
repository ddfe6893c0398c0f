/**
 * The data of each message of a stream of server-sent events (the HTML standard, section 9.2.6); an empty one for a
 * comment, which only says that the line is there. Names and ids are left out: the data says it all.
 */
export async function* messagesOf(answer: Response): AsyncGenerator<string> {
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data: string[] = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    // a lone \r at the end may be the first half of \r\n
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop()!;
    for (const line of lines) {
      if (line.startsWith(":")) yield "";
      else if (line) {
        const [, field, text = ""] = /^([^:]*):? ?(.*)$/s.exec(line)!;
        if (field === "data") data.push(text);
      } else if (data.length) {
        yield data.join("\n");
        data = [];
      }
    }
  }
}
