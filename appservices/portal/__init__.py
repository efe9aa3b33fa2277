"""The home service @weft: welcome, sign-in, and the portal's pages."""
