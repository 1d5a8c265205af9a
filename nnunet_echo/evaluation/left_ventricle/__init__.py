"""The left ventricle in a mask: its outline and mitral plane, its volume and ejection fraction."""
