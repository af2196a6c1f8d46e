"""What any graph needs: building, editing, shapes, and the layers found in it."""
