export interface Message {
  event: string;
  id: string;
  /** Empty for a comment, which only says that the line is there. */
  data: string;
}

/** The messages of a stream of server-sent events (the HTML standard, section 9.2.6), comments among them. */
export async function* messagesOf(answer: Response): AsyncGenerator<Message> {
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let [event, id, data] = ["message", "", [] as string[]];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    // a lone \r at the end may be the first half of \r\n
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop()!;
    for (const line of lines) {
      if (line.startsWith(":")) yield { event, id, data: "" };
      if (line) {
        const [, field, text = ""] = /^([^:]*):? ?(.*)$/s.exec(line)!;
        if (field === "data") data.push(text);
        else if (field === "event") event = text;
        else if (field === "id") id = text;
      } else if (data.length) {
        yield { event, id, data: data.join("\n") };
        [event, data] = ["message", []];
      }
    }
  }
}
