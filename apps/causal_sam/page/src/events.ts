/** Server-sent events of a response; `EventSource` can neither post nor sign in. */
export interface ServerEvent {
  name: string
  data: unknown
}

export async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader()
  let text = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    text += value
    const blocks = text.split('\n\n')
    text = blocks.pop() ?? ''
    for (const block of blocks) {
      const found = /^event: (.*)\ndata: (.*)$/s.exec(block)
      if (found) yield { name: found[1]!, data: JSON.parse(found[2]!) }
    }
  }
}
