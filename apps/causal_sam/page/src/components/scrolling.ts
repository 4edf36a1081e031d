/** Scrolling in the side panel. */
import type { RefObject } from 'preact'
import { useEffect } from 'preact/hooks'

/** Keeps an entry of a list in view, also while the list becomes smaller. */
export function useEntryInView(list: RefObject<HTMLElement | null>, position: number, count: number): void {
  useEffect(() => {
    const box = list.current!
    const entry = box.children[position] as HTMLElement | undefined
    if (!entry) return
    // Not by `scrollIntoView`, which would scroll the panel, too.
    const show = () => {
      const above = entry.offsetTop
      const below = above + entry.offsetHeight - box.clientHeight
      box.scrollTop = Math.min(Math.max(box.scrollTop, below), above)
    }
    show()
    const observer = new ResizeObserver(show)
    observer.observe(box)
    return () => observer.disconnect()
  }, [position, count])
}

/** Brings what has appeared into view. */
export function useIntoView(box: RefObject<HTMLElement | null>, what: unknown): void {
  useEffect(() => box.current!.scrollIntoView({ block: 'nearest' }), [what])
}
