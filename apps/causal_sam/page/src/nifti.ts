/** The image as the server sends it: an uncompressed NIfTI-1 file whose axes run to right, anterior and superior. */
export type Voxels = Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array | Float32Array

const DATA_TYPE = 70
const OFFSET_OF_VOXELS = 108
/** The server sends images of these types only. */
const TYPES: Record<number, new (file: ArrayBuffer, offset: number) => Voxels> = {
  2: Uint8Array,
  4: Int16Array,
  8: Int32Array,
  16: Float32Array,
  256: Int8Array,
  512: Uint16Array,
  768: Uint32Array,
}

/** The voxels of a file, the first axis fastest; they share its memory. */
export function voxelsOf(file: ArrayBuffer): Voxels {
  const header = new DataView(file)
  const type = TYPES[header.getInt16(DATA_TYPE, true)]
  if (!type) throw new Error('The server sent an image of an unknown type.')
  return new type(file, header.getFloat32(OFFSET_OF_VOXELS, true))
}
