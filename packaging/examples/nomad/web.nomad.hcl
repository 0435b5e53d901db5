# web.nomad.hcl
#
# The task's name, "web", is what nomad.toml looks for.

job "web" {
  type = "service"

  group "web" {
    count = 2

    task "web" {
      driver = "raw_exec"

      config {
        command = "/usr/bin/psql"
        args    = ["--host=10.96.0.10", "--command=select 1"]
      }
    }
  }
}
