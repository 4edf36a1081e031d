/** Window presets: intensities that are shown black and white. */
import type { OpenedCase } from './types'

export interface Window {
  name: 'auto' | 'soft' | 'liver' | 'lung' | 'bone' | 'brain'
  range: [number, number]
}

const CT: Window[] = [
  { name: 'soft', range: [-160, 240] },
  { name: 'liver', range: [-45, 105] },
  { name: 'lung', range: [-1350, 150] },
  { name: 'bone', range: [-450, 1050] },
  { name: 'brain', range: [0, 80] },
]

/** Width and level of a preset with fixed numbers, as radiologists write them; empty for the image's own window. */
export function numbersOf({ name, range: [low, high] }: Window): string {
  return name === 'auto' ? '' : `${high - low}/${(low + high) / 2}`
}

/** The presets for an image; those in Hounsfield units for CT only. */
export function windowsOf({ window, modality }: Pick<OpenedCase, 'window' | 'modality'>): Window[] {
  return [{ name: 'auto', range: window }, ...(modality === 'CT' ? CT : [])]
}
