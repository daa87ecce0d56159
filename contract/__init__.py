"""What an artifact is: the manifest's schema, and publishing and verifying on disk.

Both ``training`` (which publishes) and ``service`` (which loads) import this package; it imports
neither, and needs neither PyTorch nor HTTP.
"""
