package httpapi

// ExampleFileID is the file's identifier in the examples.
const ExampleFileID = exampleFileID
