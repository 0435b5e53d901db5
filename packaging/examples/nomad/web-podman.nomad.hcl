# web-podman.nomad.hcl

job "web-podman" {
  type = "service"

  group "web" {
    task "web" {
      driver = "podman"

      config {
        image        = "docker.io/library/postgres:17"
        network_mode = "host"
        command      = "psql"
        args         = ["--host=10.96.0.10", "--command=select 1"]
      }
    }
  }
}
