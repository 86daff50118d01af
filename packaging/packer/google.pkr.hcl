# An image with the agent and an Envoy, and nothing of a mesh: its VMs join by their instance's metadata. See README.md.
packer {
  required_plugins {
    googlecompute = {
      source  = "github.com/hashicorp/googlecompute"
      version = "~> 1.1"
    }
  }
}

variable "project" {
  type = string
}

variable "zone" {
  type = string
}

variable "subnetwork" {
  type    = string
  default = "default"
}

source "googlecompute" "vm" {
  project_id          = var.project
  zone                = var.zone
  subnetwork          = var.subnetwork
  source_image_family = "debian-12"
  ssh_username        = "packer"
  image_name          = "istio-vm-agent-{{timestamp}}"
  image_family        = "istio-vm-agent"
}

build {
  sources = ["source.googlecompute.vm"]

  provisioner "file" {
    sources     = ["${path.root}/istio-vm-agent.deb", "${path.root}/envoy"]
    destination = "/tmp/"
  }

  provisioner "shell" {
    execute_command = "sudo sh -eu {{.Path}}"
    inline = [
      "install -m 0755 /tmp/envoy /usr/local/bin/envoy",
      # A first boot's own upgrade may hold dpkg's lock for minutes.
      "apt-get -o DPkg::Lock::Timeout=300 update",
      "apt-get -o DPkg::Lock::Timeout=300 install -y /tmp/istio-vm-agent.deb nftables",
      "rm /tmp/istio-vm-agent.deb /tmp/envoy",
    ]
  }
}
