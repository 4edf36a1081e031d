"""End-to-end tests: Orthanc, the MONAI Label server and the OHIF viewer in a real browser."""
