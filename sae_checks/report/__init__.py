"""Results -> what people read. Tells, never decides."""
