module gw1

go 1.24
