"""The playground: a page on the HTTP port on which a person asks the models and looks at what they attend to.

`GET /playground` is the page, one file that fetches nothing from elsewhere. It asks by
`POST /playground/regard.v1.SERVICE/METHOD`, whose body is the method's request as proto3 JSON, and
which `bridge` passes to the server's own gRPC port: there is no second API, and admission, limits,
deadlines and metrics are those of every request. What other sites must not do, `guard` refuses.
"""

from regard.rpc.playground.app import Playground

__all__ = ["Playground"]
