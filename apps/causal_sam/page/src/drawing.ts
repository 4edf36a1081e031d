/** From the pointer to prompts: points, boxes, curves and strokes on the slices of the viewer. */
import { NORMAL, type Plane } from './grid'
import { packed } from './masks'
import { addPrompt, brushMm, opened, removes, tool, type NewPrompt, type Tool } from './state'
import { strokeVoxels } from './strokes'
import type { Voxel } from './types'
import type { Place, Viewer } from './viewer'

const SCRIBBLE_MM = 1
const [MIDDLE, RIGHT] = [1, 2]
/** Tools whose prompts lie inside or outside of a label. */
export const HAS_SIGN: ReadonlySet<Tool> = new Set(['point', 'scribble'])

function isRemoving(): boolean {
  return removes.value && HAS_SIGN.has(tool.value)
}

/** A drag that goes on. */
interface Drag {
  tool: Tool
  plane: Plane
  path: Voxel[]
  pixels: [number, number][]
  isOutside: boolean
}

export class Drawing {
  private drag: Drag | null = null
  private corner: Place | null = null
  /** The view in which the crosshair follows the pointer. */
  private moving: Plane | null = null
  private readonly outline: SVGPathElement

  /** @param sheet lies over the viewer; it takes the pointer while a tool other than moving is chosen */
  constructor(
    private readonly sheet: SVGSVGElement,
    private readonly viewer: Viewer,
  ) {
    this.outline = sheet.querySelector('path')!
    sheet.addEventListener('pointerdown', (event) => this.begin(event))
    sheet.addEventListener('pointermove', (event) => this.extend(event))
    sheet.addEventListener('pointerup', () => this.end())
    sheet.addEventListener('pointercancel', () => this.cancel())
    sheet.addEventListener('contextmenu', (event) => event.preventDefault())
  }

  cancel(): void {
    this.drag = this.corner = this.moving = null
    this.outline.setAttribute('d', '')
  }

  /** Prompts at the crosshair, for users of the keyboard; a box takes two corners. */
  promptAtCrosshair(isOutside: boolean): void {
    const place: Place = { voxel: this.viewer.crosshair, plane: 'axial' }
    if (tool.value === 'box' && !this.corner) {
      this.corner = place
      return
    }
    isOutside ||= isRemoving()
    const path = this.corner ? [this.corner.voxel, place.voxel] : [place.voxel]
    if (path[0]) path[0][2] = place.voxel[2]
    this.corner = null
    this.send({ tool: tool.value, plane: place.plane, path, pixels: [], isOutside })
  }

  private begin(event: PointerEvent): void {
    const place = this.viewer.placeAt(event)
    if (!place) return
    this.sheet.setPointerCapture(event.pointerId)
    if (event.button === MIDDLE || event.shiftKey || event.ctrlKey || event.metaKey) {
      event.preventDefault() // browsers scroll by the middle button
      this.moving = place.plane
      this.viewer.moveTo(place.voxel)
      return
    }
    const isOutside = isRemoving() || event.altKey || event.button === RIGHT
    this.drag = { tool: tool.value, plane: place.plane, path: [], pixels: [], isOutside }
    this.extend(event)
  }

  private extend(event: PointerEvent): void {
    this.sheet.classList.toggle('remove', isRemoving() || (event.altKey && HAS_SIGN.has(tool.value)))
    const { drag, moving } = this
    const place = drag || moving ? this.viewer.placeAt(event) : null
    if (moving && place?.plane === moving) this.viewer.moveTo(place.voxel)
    if (!drag || !place || place.plane !== drag.plane) return
    // The slice of the first voxel, whatever rounding says.
    const normal = NORMAL[drag.plane] as 0
    if (drag.path[0]) place.voxel[normal] = drag.path[0][normal]
    const frame = this.sheet.getBoundingClientRect()
    drag.path.push(place.voxel)
    drag.pixels.push([event.clientX - frame.left, event.clientY - frame.top])
    this.draw(drag)
  }

  private end(): void {
    const drag = this.drag
    this.cancel()
    if (drag?.path.length) this.send(drag)
  }

  private send(drag: Drag): void {
    const prompt = this.promptOf(drag)
    if (!prompt) return
    this.viewer.moveTo(drag.path.at(-1)!)
    void addPrompt(prompt)
  }

  private promptOf({ tool, plane, path, isOutside }: Drag): NewPrompt | null {
    const grid = this.viewer.grid!
    const shape = opened.value!.shape
    const asked = { plane: grid.planeToAsk(plane) }
    const first = path[0]!
    const last = path.at(-1)!
    const painted = (radius: number) =>
      packed(
        strokeVoxels(path, plane, grid.spacing, grid.size, radius).map((voxel) => grid.toFile(voxel)),
        shape,
      )
    switch (tool) {
      case 'point': {
        const voxel = grid.toFile(last)
        return { kind: 'points', foreground: isOutside ? [] : [voxel], background: isOutside ? [voxel] : [] }
      }
      case 'box': {
        const ends = [grid.toFile(first), grid.toFile(last)] as const
        const box = [0, 1, 2].flatMap((axis) => {
          const pair = ends.map((end) => end[axis as 0])
          return [Math.min(...pair), Math.max(...pair)]
        })
        const isFlat = box.filter((_, n) => n % 2 && box[n] === box[n - 1]).length > 1
        return isFlat ? null : { kind: 'box', box: box as [number, number, number, number, number, number], ...asked }
      }
      case 'lasso':
        return path.length < 3 ? null : { kind: 'lasso', corners: path.map((voxel) => grid.toFile(voxel)), ...asked }
      case 'scribble':
        return { kind: 'scribble', [isOutside ? 'outside' : 'inside']: painted(SCRIBBLE_MM), ...asked }
      case 'brush':
      case 'erase':
        return { kind: 'brush', painted: painted(brushMm.value / 2), erase: tool === 'erase' }
      case 'navigate':
        return null
    }
  }

  private draw({ tool, pixels, isOutside }: Drag): void {
    const [x0, y0] = pixels[0]!
    const [x1, y1] = pixels.at(-1)!
    const line = `M${pixels.map((at) => at.join()).join('L')}`
    const shapes: Partial<Record<Tool, string>> = {
      point: `M${x1 - 4},${y1}a4,4 0 1 0 8,0a4,4 0 1 0 -8,0`,
      box: `M${x0},${y0}H${x1}V${y1}H${x0}Z`,
      lasso: `${line}Z`,
    }
    this.outline.setAttribute('d', shapes[tool] ?? line)
    this.outline.classList.toggle('outside', isOutside || tool === 'erase')
  }
}
