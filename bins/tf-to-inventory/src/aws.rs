//! The calls that this tool makes to AWS besides reading objects. They go without generated clients: decision 0009.

use deploy_aws::{Client, Error, Service};

const EC2: Service = Service { name: "ec2", id: "EC2", version: "2016-11-15" };
const AUTO_SCALING: Service =
    Service { name: "autoscaling", id: "Auto Scaling", version: "2011-01-01" };

/// `ec2:DescribeInstances`, one page.
pub(crate) async fn describe_instances(
    client: &Client,
    parameters: Vec<(String, String)>,
) -> Result<String, Error> {
    client.query(EC2, "ec2:DescribeInstances", "DescribeInstances", parameters).await
}

/// `autoscaling:DescribeAutoScalingGroups`, one page.
pub(crate) async fn describe_auto_scaling_groups(
    client: &Client,
    parameters: Vec<(String, String)>,
) -> Result<String, Error> {
    let operation = "autoscaling:DescribeAutoScalingGroups";
    client.query(AUTO_SCALING, operation, "DescribeAutoScalingGroups", parameters).await
}
