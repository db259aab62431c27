"""HTTP: what every operation has in common. Features declare operations; this package carries them out."""
