// For editors: `go work init . PATH/TO/sdk/go` beside this folder. `gateway plugin build` makes a workspace of its own.
module codec/{{name}}

go 1.24
