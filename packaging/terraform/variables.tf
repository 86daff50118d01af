variable "project" {
  type        = string
  description = "The project of the VMs."
}

variable "zone" {
  type        = string
  description = "The zone of the VMs."
}

variable "network" {
  type        = string
  description = "The network that the VMs share with the cluster."
}

variable "subnetwork" {
  type        = string
  description = "The subnetwork of the VMs."
}

variable "service_account" {
  type        = string
  description = "The address of the VMs' service account, to which `istio-vm-agent manifests` binds the Role."
}

variable "bucket" {
  type        = string
  description = "The bucket with SHA256SUMS, istio-vm-agent.deb and envoy in istio-vm-agent/."
}

variable "cluster" {
  type        = string
  description = "The GKE cluster: projects/P/locations/L/clusters/C."

  validation {
    condition     = can(regex("^projects/[^/]+/locations/[^/]+/clusters/[^/]+$", var.cluster))
    error_message = "Write projects/PROJECT/locations/LOCATION/clusters/NAME."
  }
}

variable "namespace" {
  type        = string
  description = "The namespace of the WorkloadGroup."
}

variable "workload_group" {
  type        = string
  description = "The WorkloadGroup that the VMs are of."
}

variable "ports" {
  type        = list(string)
  description = "The TCP ports of the VMs that pods call."
}

variable "pod_ranges" {
  type        = list(string)
  description = "The address ranges of the cluster's pods."
}

variable "node_service_account" {
  type        = string
  description = "The address of the service account of the cluster's nodes, where istiod's gateway is reached."
}

variable "name" {
  type        = string
  default     = "productcatalog"
  description = "The name of the group and of what is around it."
}

variable "size" {
  type        = number
  default     = 2
  description = "How many VMs there are; 0 makes all but the VMs."
}

variable "machine_type" {
  type        = string
  default     = "e2-small"
  description = "The machine type of the VMs."
}

variable "image" {
  type        = string
  default     = "ubuntu-os-cloud/ubuntu-2404-lts-amd64"
  description = "An image that runs cloud-init; Debian's on this cloud does not."
}

variable "nat" {
  type        = bool
  default     = false
  description = "Makes a NAT where the network has none: apt needs it."
}
