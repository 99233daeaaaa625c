# What every app shares. terraform_data is built into Terraform and OpenTofu: no provider is downloaded.

variable "region" {
  type    = string
  default = "eu-west-1"
}

resource "terraform_data" "network" {
  input = "vpc in eu-west-1"
}

resource "terraform_data" "registry_access" {
  input = "pull from the private registry"
}

output "network" {
  value = terraform_data.network.output
}
