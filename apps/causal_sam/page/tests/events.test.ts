import { expect, test } from 'vitest'
import { eventsOf, type ServerEvent } from '../src/events'

test('events are read whatever pieces they come in', async () => {
  const text = 'event: progress\ndata: {"slices": 3}\n\nevent: answer\ndata: {"message": "ä"}\n\n'
  const bytes = new TextEncoder().encode(text)
  for (const size of [1, 7, bytes.length]) {
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (let n = 0; n < bytes.length; n += size) controller.enqueue(bytes.slice(n, n + size))
        controller.close()
      },
    })
    const found: ServerEvent[] = []
    for await (const event of eventsOf(body)) found.push(event)
    expect(found).toEqual([
      { name: 'progress', data: { slices: 3 } },
      { name: 'answer', data: { message: 'ä' } },
    ])
  }
})
