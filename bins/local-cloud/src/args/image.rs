//! The flags of `local-cloud image`.

use super::Shared;
use crate::image::suites::Suite;

/// `image`.
#[derive(Debug, clap::Args)]
pub struct ImageArgs {
    /// What to do with images.
    #[command(subcommand)]
    pub action: ImageAction,
}

/// What to do with images.
#[derive(Debug, clap::Subcommand)]
pub enum ImageAction {
    /// List the machine images: id, name, cloud-init, and whether it is built here.
    List(Shared),
    /// Build images of suites, where they are missing or damaged.
    Build(ImageBuildArgs),
    /// Make an image of your own a machine image, and print its id.
    Add(ImageAddArgs),
    /// Forget an image of your own. Hosts that run from it go on.
    Remove(ImageRemoveArgs),
}

impl ImageAction {
    /// What every command has.
    pub(super) fn shared(&self) -> &Shared {
        match self {
            Self::List(args) => args,
            Self::Build(args) => &args.shared,
            Self::Add(args) => &args.shared,
            Self::Remove(args) => &args.shared,
        }
    }
}

/// `image build`.
#[derive(Debug, clap::Args)]
pub struct ImageBuildArgs {
    /// The suites.
    #[arg(value_name = "SUITE", value_parser = super::a_suite(), required_unless_present = "all")]
    pub suites: Vec<&'static Suite>,

    /// All of them.
    #[arg(long)]
    pub all: bool,

    /// What every command has.
    #[command(flatten)]
    pub shared: Shared,
}

/// `image add`.
#[derive(Debug, clap::Args)]
pub struct ImageAddArgs {
    /// Its name, for `describe-images`.
    pub name: String,

    /// An image that Docker has, or a tarball: of a root file system or from `docker save`.
    #[arg(long, value_name = "IMAGE|TARBALL")]
    pub from: String,

    /// What every command has.
    #[command(flatten)]
    pub shared: Shared,
}

/// `image remove`.
#[derive(Debug, clap::Args)]
pub struct ImageRemoveArgs {
    /// Its name or id.
    pub name: String,

    /// What every command has.
    #[command(flatten)]
    pub shared: Shared,
}
