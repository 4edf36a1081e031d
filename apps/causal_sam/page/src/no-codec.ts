// NiiVue can read Zarr, which the page never loads; its codecs would be most of the built page.
export default {}
