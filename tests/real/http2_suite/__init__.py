"""HTTP/2 by the frame: what a peer may do that no library would, and what the sidecar must make of it.

`wire` has the frames and a connection that writes any of them; `expect` says which reactions are accepted;
`listener` and `endpoint` play the app's side and the endpoint's side, over tables of cases in the modules beside
them, each named after the section that asks for it. `targets` starts what is tried: the sidecar, or another proxy
that shows whether the tables are right.
"""
