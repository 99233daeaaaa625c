# What belongs to the app.

resource "terraform_data" "namespace" {
  input = "shop"
}

resource "terraform_data" "service_account" {
  input = "shop/web"
}
