# A managed instance group whose VMs join the mesh of a GKE cluster by themselves: what packaging/gcp/managed-instance-group
# makes by gcloud. See README.md.
terraform {
  required_version = ">= 1.3"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0, < 8.0"
    }
  }
}

locals {
  region = regex("^(.*)-[a-z]$", var.zone)[0]
}

# A VM may look up where the cluster is, and read the bucket. What it may read in the cluster is for the Role to say that
# `istio-vm-agent manifests` prints.
resource "google_project_iam_member" "cluster" {
  project = var.project
  role    = "roles/container.clusterViewer"
  member  = "serviceAccount:${var.service_account}"
}

resource "google_storage_bucket_iam_member" "package" {
  bucket = var.bucket
  role   = "roles/storage.objectViewer"
  member = "serviceAccount:${var.service_account}"
}

# Pods call the VMs, and VMs call istiod and the gateway between networks on the cluster's nodes.
resource "google_compute_firewall" "pods" {
  project                 = var.project
  name                    = "${var.name}-pods"
  network                 = var.network
  source_ranges           = var.pod_ranges
  target_service_accounts = [var.service_account]

  allow {
    protocol = "tcp"
    ports    = var.ports
  }
}

resource "google_compute_firewall" "istiod" {
  project                 = var.project
  name                    = "${var.name}-istiod"
  network                 = var.network
  source_service_accounts = [var.service_account]
  target_service_accounts = [var.node_service_account]

  allow {
    protocol = "tcp"
    ports    = ["15012", "15443"]
  }
}

resource "google_compute_firewall" "health_checks" {
  project                 = var.project
  name                    = "${var.name}-health-checks"
  network                 = var.network
  source_ranges           = ["130.211.0.0/22", "35.191.0.0/16"]
  target_service_accounts = [var.service_account]

  allow {
    protocol = "tcp"
    ports    = ["15021"]
  }
}

resource "google_compute_router" "nat" {
  count   = var.nat ? 1 : 0
  project = var.project
  name    = var.name
  network = var.network
  region  = local.region
}

resource "google_compute_router_nat" "nat" {
  count                              = var.nat ? 1 : 0
  project                            = var.project
  name                               = var.name
  router                             = google_compute_router.nat[0].name
  region                             = local.region
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "LIST_OF_SUBNETWORKS"

  subnetwork {
    name                    = var.subnetwork
    source_ip_ranges_to_nat = ["ALL_IP_RANGES"]
  }
}

resource "google_compute_instance_template" "vm" {
  project      = var.project
  name_prefix  = "${var.name}-"
  region       = local.region
  machine_type = var.machine_type

  disk {
    source_image = var.image
  }

  network_interface {
    network    = var.network
    subnetwork = var.subnetwork
  }

  # userinfo-email: without it GKE knows the service account by its number only, and a RoleBinding by its address is not its.
  service_account {
    email  = var.service_account
    scopes = ["cloud-platform", "userinfo-email"]
  }

  shielded_instance_config {
    enable_secure_boot = true
  }

  metadata = {
    istio-vm-agent-cluster        = var.cluster
    istio-vm-agent-namespace      = var.namespace
    istio-vm-agent-workload-group = var.workload_group
    user-data = replace(
      file("${path.module}/../cloud-init/instance-metadata.yaml"), "gs://BUCKET", "gs://${var.bucket}"
    )
  }

  # A template can't be changed: another text is another template.
  lifecycle {
    create_before_destroy = true
  }
}

# Envoy's readiness through the mesh's own port; a VM that stays unready for two minutes is replaced.
resource "google_compute_health_check" "ready" {
  project             = var.project
  name                = var.name
  check_interval_sec  = 10
  unhealthy_threshold = 12

  http_health_check {
    port         = 15021
    request_path = "/healthz/ready"
  }
}

resource "google_compute_instance_group_manager" "vms" {
  project            = var.project
  name               = var.name
  zone               = var.zone
  base_instance_name = var.name
  target_size        = var.size

  version {
    instance_template = google_compute_instance_template.vm.self_link_unique
  }

  auto_healing_policies {
    health_check      = google_compute_health_check.ready.id
    initial_delay_sec = 300
  }
}

output "instance_group" {
  description = "The group's URL, for a load balancer outside of the mesh."
  value       = google_compute_instance_group_manager.vms.instance_group
}
