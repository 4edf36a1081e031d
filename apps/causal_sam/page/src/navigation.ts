/** The pointer on the views while no tool is chosen: crosshair, pan and window, by the buttons that OHIF uses. */
import type { Plane } from './grid'
import type { Viewer } from './viewer'

const ZOOM = 1.15
/** Pixels of the page that move the window by its width, or double it. */
const WINDOW_PIXELS = 300
const [LEFT, MIDDLE] = [0, 1]

/** Listens to the pointer on the canvas of a viewer, and to the wheel on what is around it. */
export function navigate(canvas: HTMLCanvasElement, around: HTMLElement, viewer: Viewer): void {
  let drag: { button: number; plane: Plane; x: number; y: number } | null = null
  const moveCrosshair = (event: PointerEvent, plane: Plane) => {
    const place = viewer.placeAt(event)
    if (place?.plane === plane) viewer.moveTo(place.voxel)
  }
  canvas.addEventListener('pointerdown', (event) => {
    const place = viewer.placeAt(event)
    if (!place) return
    canvas.setPointerCapture(event.pointerId)
    drag = { button: event.button, plane: place.plane, x: event.clientX, y: event.clientY }
    if (event.button === LEFT) viewer.moveTo(place.voxel)
    if (event.button === MIDDLE) event.preventDefault() // browsers scroll by it
  })
  canvas.addEventListener('pointermove', (event) => {
    if (!drag) return
    const [right, down] = [event.clientX - drag.x, event.clientY - drag.y]
    Object.assign(drag, { x: event.clientX, y: event.clientY })
    if (drag.button === LEFT) moveCrosshair(event, drag.plane)
    else if (drag.button === MIDDLE) viewer.pan(drag.plane, right, down)
    else viewer.changeWindow(down / WINDOW_PIXELS, right / WINDOW_PIXELS)
  })
  const end = () => (drag = null)
  canvas.addEventListener('pointerup', end)
  canvas.addEventListener('pointercancel', end)
  canvas.addEventListener('contextmenu', (event) => event.preventDefault())
  around.addEventListener(
    'wheel',
    (event) => {
      const place = viewer.placeAt(event)
      if (!place) return
      event.preventDefault()
      if (event.ctrlKey) viewer.zoom(event.deltaY < 0 ? ZOOM : 1 / ZOOM)
      else viewer.scroll(place.plane, event.deltaY < 0 ? 1 : -1)
    },
    { passive: false },
  )
}
