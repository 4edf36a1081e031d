/** The masks of all labels in one array of the viewer, whose values are the rows of its colour table. */
import type { Grid } from './grid'
import { forEachVoxel } from './masks'
import type { Label, Mask, NotePreview } from './types'

/** Values for what a note would add and take away. */
export const GAINED = 254
export const LOST = 255
const MAX_VALUE = 253

export class LabelMap {
  private readonly values = new Map<string, number>()
  private readonly masks = new Map<string, { key: string; mask: Mask }>()

  /**
   * @param grid grid of the image
   * @param bitmap one value for each voxel of the viewer; changed in place
   */
  constructor(
    private readonly grid: Grid,
    readonly bitmap: Uint8Array,
  ) {}

  /** The value of a label, which it keeps as long as the case is open. */
  valueOf(name: string): number {
    const value = this.values.get(name) ?? (this.values.size % MAX_VALUE) + 1
    this.values.set(name, value)
    return value
  }

  /** Keys of the masks that are here. */
  get known(): string[] {
    return [...this.masks.values()].map(({ key }) => key)
  }

  /** Shows the labels of an answer; those without a mask are here already. */
  update(labels: Label[]): void {
    const names = new Set(labels.map(({ name }) => name))
    const changed = labels.filter(({ name, key }) => this.masks.get(name)?.key !== key)
    for (const [name, { mask }] of this.masks) {
      if (!names.has(name) || changed.some((label) => label.name === name)) {
        this.write(mask, 0, this.valueOf(name))
        this.masks.delete(name)
      }
    }
    for (const { name, key, mask } of changed) {
      if (!mask) continue
      this.masks.set(name, { key, mask })
      this.write(mask, this.valueOf(name))
    }
  }

  /** Shows what a note would change. */
  preview(changes: NotePreview['changes']): void {
    for (const { gained, lost } of changes) {
      this.write(lost, LOST)
      this.write(gained, GAINED)
    }
  }

  /** Shows the labels alone again. */
  endPreview(): void {
    this.bitmap.fill(0)
    for (const [name, { mask }] of this.masks) this.write(mask, this.valueOf(name))
  }

  private write(mask: Mask, value: number, onlyOver?: number): void {
    const { bitmap, grid } = this
    const [si, sj, sk] = grid.steps
    forEachVoxel(mask, (i, j, k) => {
      const n = grid.origin + i * si + j * sj + k * sk
      if (onlyOver === undefined || bitmap[n] === onlyOver) bitmap[n] = value
    })
  }
}
