"""The Moments page, in the portal and as a widget."""
