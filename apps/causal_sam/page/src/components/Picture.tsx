import { useEffect, useRef, useState } from 'preact/hooks'
import { load } from '../api'
import { busy } from '../state'

let last: Promise<unknown> = Promise.resolve()

/** Loads one picture after the other, between the requests of the user: the server reads a whole image for each. */
function inTurn<T>(load: () => Promise<T>): Promise<T> {
  const next = last.then(idle).then(load)
  last = next.catch(() => undefined)
  return next
}

function idle(): Promise<void> {
  return new Promise((go) => {
    const stop = busy.subscribe((now) => {
      if (now) return
      go()
      queueMicrotask(() => stop())
    })
  })
}

/** A picture of the server, loaded when it comes into view; by `load`, since an image element cannot sign in. */
export function Picture({ path, kind }: { path: string; kind: 'thumbnail' | 'preview' }) {
  const frame = useRef<HTMLSpanElement>(null)
  const [url, setUrl] = useState('')
  useEffect(() => {
    let made = ''
    const observer = new IntersectionObserver(([entry]) => {
      if (!entry?.isIntersecting) return
      observer.disconnect()
      inTurn(() => load(path)).then(
        (file) => setUrl((made = URL.createObjectURL(new Blob([file], { type: 'image/png' })))),
        () => undefined, // an image that cannot be read has no picture; opening it says why
      )
    })
    observer.observe(frame.current!)
    return () => {
      observer.disconnect()
      URL.revokeObjectURL(made)
    }
  }, [path])
  return (
    <span class={kind} ref={frame}>
      {url && <img src={url} alt="" />}
    </span>
  )
}
