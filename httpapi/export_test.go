package httpapi

// ExampleFileID and ExampleSessionID are the identifiers in the examples.
const (
	ExampleFileID    = exampleFileID
	ExampleSessionID = exampleSessionID
)
