package agent

// MapStrings is what treats a model's arguments.
var MapStrings = mapStrings
